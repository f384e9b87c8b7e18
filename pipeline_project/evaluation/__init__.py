"""Is the package good enough, fair, robust, safe and fast: judged as it is served, with evidence a person can read."""
