"""`python -m pipeline_project.cli`."""

from pipeline_project.cli import main

if __name__ == "__main__":
    main()
