"""Who may speak and what becomes of an object: rules asked in order, the first that holds decides. Pure.

It must never look at anything but the settings and the values that it is handed.
"""

from cds_plugin.rules.deciding import Decision, decide
from cds_plugin.rules.door import Answer, Entry, admit, ask_door
from cds_plugin.rules.facts import ObjectFacts
from cds_plugin.rules.matching import Finding, findings, holds
from cds_plugin.rules.routes import routes_of_sender
from cds_plugin.rules.shadows import Warned, warnings

__all__ = [
    "Answer",
    "Decision",
    "Entry",
    "Finding",
    "ObjectFacts",
    "Warned",
    "admit",
    "ask_door",
    "decide",
    "findings",
    "holds",
    "routes_of_sender",
    "warnings",
]
