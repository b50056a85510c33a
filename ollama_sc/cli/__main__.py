"""`python -m ollama_sc.cli` is the command `ollama-sc`."""

import sys

from ollama_sc.cli import main

sys.exit(main())
