"""The web page of the server: one file, nothing from elsewhere, and a policy that lets no other script run."""

import base64
import hashlib

_STYLE = """
:root { color-scheme: light dark; --bg: #f6f7f9; --card: #fff; --ink: #16202c; --soft: #66727f; --line: #dfe4ea; --accent: #2456d6; }
@media (prefers-color-scheme: dark) {
  :root { --bg: #10151c; --card: #19212b; --ink: #e8edf2; --soft: #93a1b0; --line: #2b3643; --accent: #7fa5ff; }
}
* { box-sizing: border-box; margin: 0; }
body { font: 16px/1.5 system-ui, sans-serif; background: var(--bg); color: var(--ink); min-height: 100vh; padding: 4vh 16px; }
main { max-width: 880px; margin: auto; }
h1 { font-size: 1.5rem; font-weight: 650; letter-spacing: -.01em; }
.soft { color: var(--soft); font-size: .9rem; }
label.drop { display: block; margin: 20px 0; padding: 36px 16px; border: 2px dashed var(--line); border-radius: 14px;
  background: var(--card); text-align: center; cursor: pointer; transition: border-color .15s; }
label.drop.over, label.drop:focus-within { border-color: var(--accent); }
label.drop input { position: absolute; opacity: 0; pointer-events: none; }
.result { display: grid; grid-template-columns: repeat(auto-fit, minmax(250px, 1fr)); gap: 16px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 16px; }
.card img { width: 100%; aspect-ratio: 1; object-fit: contain; border-radius: 8px; display: block; background: var(--bg); }
.card h2 { font-size: .8rem; font-weight: 600; color: var(--soft); text-transform: uppercase; letter-spacing: .06em; margin-bottom: 10px; }
.best { font-size: 1.35rem; font-weight: 650; margin-bottom: 10px; }
.row { margin: 8px 0; }
.row div { display: flex; justify-content: space-between; font-size: .9rem; gap: 12px; overflow-wrap: anywhere; }
.track { height: 8px; background: var(--line); border-radius: 4px; overflow: hidden; }
.track span { display: block; height: 100%; background: var(--accent); border-radius: 4px; }
.error { color: #c22f2f; margin: 12px 0; min-height: 1.5em; }
[hidden] { display: none; }
button { font: inherit; font-size: .85rem; color: var(--ink); background: none; border: 1px solid var(--line); border-radius: 8px;
  padding: 3px 10px; margin: 4px 4px 0 0; cursor: pointer; }
button:hover { border-color: var(--accent); }
"""

_SCRIPT = """
const $ = id => document.getElementById(id);
let shown = null;
const percent = p => (100 * p).toFixed(1) + ' %';
async function send(path, body, id, extra) {
  const answer = await fetch(path, { method: 'POST', body, headers: { 'X-Request-ID': id, ...extra } });
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    throw new Error(problem.message || 'the server answered ' + answer.status);
  }
  return answer;
}
function form(file) { const body = new FormData(); body.append('file', file); return body; }
function row(name, p) {
  const line = document.createElement('div'), text = document.createElement('div');
  line.className = 'row';
  for (const t of [name, percent(p)]) { const s = document.createElement('span'); s.textContent = t; text.append(s); }
  const track = document.createElement('div'), bar = document.createElement('span');
  track.className = 'track'; bar.style.width = 100 * p + '%'; track.append(bar); line.append(text, track);
  return line;
}
function feedbackButton(name, id) {
  const button = document.createElement('button');
  button.type = 'button'; button.textContent = name;
  button.onclick = () => send('feedback', JSON.stringify({ request_id: id, label: name }), id, { 'Content-Type': 'application/json' })
    .then(() => { $('thanks').textContent = 'Noted: ' + name + '. Thank you.'; })
    .catch(e => { $('thanks').textContent = e.message; });
  return button;
}
function show(image, blob) { if (image.src) URL.revokeObjectURL(image.src); image.src = URL.createObjectURL(blob); }
async function classify(file) {
  const id = Array.from(crypto.getRandomValues(new Uint8Array(16)), b => b.toString(16).padStart(2, '0')).join('');
  shown = id;
  $('error').textContent = '';
  $('thanks').textContent = '';
  try {
    const started = performance.now();
    const said = await (await send('predict', form(file), id)).json();
    if (shown !== id) return;
    const took = Math.round(performance.now() - started);
    show($('picture'), file);
    $('best').textContent = said.predicted_class + ', ' + percent(said.confidence);
    const ranked = Object.entries(said.all_probabilities).sort((a, b) => b[1] - a[1]);
    $('bars').replaceChildren(...ranked.map(([name, p]) => row(name, p)));
    $('labels').replaceChildren(...ranked.map(([name]) => feedbackButton(name, id)));
    $('facts').textContent = took + ' ms, model ' + said.model + ', route ' + said.route;
    $('result').hidden = false;
    const heat = await (await send('explain', form(file), id)).blob();
    if (shown === id) show($('heat'), heat);
  } catch (e) { $('error').textContent = e.message; }
}
const drop = $('drop');
$('file').onchange = e => e.target.files[0] && classify(e.target.files[0]);
for (const kind of ['dragover', 'dragenter']) drop.addEventListener(kind, e => { e.preventDefault(); drop.classList.add('over'); });
for (const kind of ['dragleave', 'drop']) drop.addEventListener(kind, e => { e.preventDefault(); drop.classList.remove('over'); });
drop.addEventListener('drop', e => e.dataTransfer.files[0] && classify(e.dataTransfer.files[0]));
addEventListener('paste', e => e.clipboardData.files[0] && classify(e.clipboardData.files[0]));
"""

_BODY = """
<main>
<h1>Product image classifier</h1>
<p class="soft">Drop a picture to see its class and where in the picture the evidence lies.</p>
<label class="drop" id="drop"><input type="file" id="file" accept="image/*">
<strong>Drop, paste or choose a picture</strong><br><span class="soft">JPEG, PNG or WebP</span></label>
<p class="error" id="error" role="alert"></p>
<section class="result" id="result" aria-live="polite" hidden>
<div class="card"><h2>Class</h2><p class="best" id="best"></p><div id="bars"></div><p class="soft" id="facts"></p></div>
<div class="card"><h2>Picture</h2><img id="picture" alt="The picture that was sent"></div>
<div class="card"><h2>Evidence</h2><img id="heat" alt="Heat map: warm regions speak for the class"></div>
<div class="card"><h2>Not right? What is it?</h2><div id="labels"></div><p class="soft" id="thanks" role="status"></p></div>
</section>
</main>
"""


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


PAGE = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Product image classifier</title>'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f'<link rel="icon" href="data:,"><style>{_STYLE}</style></head><body>{_BODY}<script>{_SCRIPT}</script></body></html>'
).encode()
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; script-src {_source(_SCRIPT)}; style-src {_source(_STYLE)}; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
