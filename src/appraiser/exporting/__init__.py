"""A trained model as a folder for other engines and other machines, reloaded and compared before it is called done.

source.py ──▶ export.py ──▶ OUT: weights or adapter, processor, generation settings, appraiser.json
                 ├── pictures.py            20 reference pictures: the data set's own, or rendered
                 ├── answers.py ◀──┐        greedy answers with their logits, and how they are compared
                 ├── fresh.py ─────┘        the same in a process of its own, through the Auto classes
                 └── reference.py, card.py  reference.json (pictures, answers, checks) and README.md
"""
