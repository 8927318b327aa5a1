"""The command line: every command parses, calls one library function, and prints.

Results go to stdout, progress and warnings to stderr; `--json` prints one document. torch and transformers are imported
inside the commands that need them, so that `--help` opens at once.
"""

from appraiser.cli.app import app, main
from appraiser.cli.data import build, check, sample
from appraiser.cli.export import export
from appraiser.cli.model import demo, evaluate, predict, train
from appraiser.cli.serve import serve
from appraiser.cli.verify import verify

__all__ = ["app", "main"]

# In the order in which `--help` lists them.
for command in (sample, build, check, train, evaluate, predict, serve, export, verify, demo):
    app.command()(command)
