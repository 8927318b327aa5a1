"""Whether pictures, crops, prompt and template arrive somewhere else as they were trained, and what is wrong if not.

                        ┌── folder.py   a folder, loaded through the Auto classes ──┐
reference.json ─ replay ┤                                                           ├─▶ verify.py ─▶ Verdict
                        └── client.py   a server, by its OpenAI-compatible API ─────┘
                                             differs? cause.py tries mistakes.py on the export's own weights
"""
