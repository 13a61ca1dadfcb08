"""Chapter 4: the application entities, and what happens in which order."""

from __future__ import annotations

from collections.abc import Iterator

from cds_plugin.conformance.markdown import Section, table

FLOW = """\
```
 modality, PACS ── C-STORE, N-ACTION, C-ECHO ──▶ LISTENER ──┐
 gateway, PACS ─── STOW-RS ────────────────────▶ WEB ───────┤
 archive ◀──────── C-FIND/C-GET/C-MOVE, ─────── PULL ───────┤
                   QIDO-RS/WADO-RS                          ▼
                                                   spool and database
                                                            │  quiet time, then analysis
 PACS ◀─────────── C-STORE, STOW-RS, N-ACTION, DELIVERER ◀──┘
                   N-EVENT-REPORT
```"""

ENTITIES = (
    ("LISTENER", "`listen`", "accepts associations: Verification, Storage, Storage Commitment as SCP"),
    ("WEB", "`web`", "accepts HTTP requests: STOW-RS as origin server"),
    (
        "DELIVERER",
        "`deliver`",
        "opens associations: Storage and Storage Commitment as SCU, storage commitment reports as SCP; opens "
        "HTTP requests: STOW-RS",
    ),
    ("PULL", "`pull`", "opens associations and HTTP requests: Query/Retrieve as SCU, QIDO-RS and WADO-RS"),
    (
        "SENDER",
        "`send`, `doctor`",
        "opens associations on request of an administrator: Storage, Verification",
    ),
)


def sections() -> Iterator[Section]:
    """Yield chapter 4."""
    yield Section("4", "Implementation model")
    yield Section("4.1", "Application data flow", (FLOW,))
    yield Section(
        "4.2",
        "Functional definition of the application entities",
        (table(("application entity", "command of `cds-plugin`", "what it does"), ENTITIES),),
    )
    yield Section(
        "4.3",
        "Sequencing of real-world activities",
        (
            "1. An object arrives by C-STORE, STOW-RS or a pull. It is checked, written durably, recorded "
            "and "
            "only then acknowledged.\n"
            "2. A study is complete when nothing new arrived for the quiet time and no association or upload "
            "that stored into it is active, or after the longest time. Later objects make a further "
            "revision.\n"
            "3. Each picture of the study is analysed. Results are written, hashed and recorded once.\n"
            "4. The results are sent to the destinations of the rule that spoke for the picture, and sent "
            "again until they are taken, refused or given up. A destination whose setting says so is asked "
            "for storage commitment next.\n"
            "5. A requester of storage commitment gets its N-EVENT-REPORT once the files were looked at.",
        ),
    )
