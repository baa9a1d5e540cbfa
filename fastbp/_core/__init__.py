"""The core of a network, below everything that computes from one or writes it down.

Read `graph.py` (the chain as a list), `segments.py` (the chain rule), `inputs.py` (the gate for data) and `core.py`
(passes and steps), in this order. What users see is `fastbp.network`.
"""
