"""Where on the body a lesion lies, in the words of HAM10000, from what a DICOM header says.

Sources: codes of PS3.16 CID 4029 (Dermatology Anatomic Sites) and CID 4 (Anatomic Regions), by their meanings
in pydicom's copy of both; Defined Terms of Body Part Examined, PS3.16 Annex L; on the other side the column
`localization` of HAM10000 (Tschandl 2018) and five regions that hold its sites. Nails, mucosa, eyes and hair,
which HAM10000 does not know, and what lies between two regions, have no site here.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

SKIN_OF = "skin of "
SITES: Mapping[str, str] = {
    "scalp": """
        occipital region; parietal region; scalp; vertex of scalp
    """,
    "face": """
        ala nasi; caruncle of eye; cheek; chin; dorsum of nose; eye region; eyebrow; face; forehead;
        infraalar groove; jawline; lateral canthus; lip; lower eyelid; lower eyelid margin; lower lip;
        medial canthus; nasolabial fold; nose; paranasal cheek; perioral region of face; philtrum; side of
        nose; submental area; temporal region; tip of nose; upper eyelid; upper eyelid margin; upper lip;
        vermilion proper of lower lip; vermilion proper of upper lip; eyelid; jaw region
    """,
    "ear": """
        anterior helix of ear; antitragus; cavity of concha; crus of helix; ear; ear lobule; external
        auditory canal; helix of ear; inferior helix of ear; inferior posterior surface of the pinna;
        intertragal incisure; lower antihelix of ear; posterior helix of ear; posterior lobule of the ear;
        superior antihelix of ear; superior posterior helix of ear; superior posterior surface of the pinna;
        tragus; upper antihelix of ear
    """,
    "neck": """
        anterior triangle of neck; anterior portion of neck; lateral portion of neck; neck; nuchal region;
        paraspinal area of the neck; supraclavicular region of neck; submandibular triangle
    """,
    "head and neck": """
        head; postauricular region; preauricular region; head and neck
    """,
    "chest": """
        anterior surface of thorax; areola; infraclavicular region; lower chest wall; lower inner quadrant
        of breast; lower outer quadrant of breast; nipple; upper inner quadrant of breast; upper outer
        quadrant of left breast; sternal skin; breast; sternum; thorax
    """,
    "back": """
        back; back of trunk; back of upper thoracic region; lower back; lower paraspinal region; mid back;
        mid paraspinal region; paraspinal area of the superior back; posterior surface of thorax; upper
        paraspinal region
    """,
    "abdomen": """
        abdomen; epigastric area; hypogastric region; lower abdomen; umbilicus; upper abdomen; flank
    """,
    "trunk": """
        anterior trunk; buttock; gluteal fold; upper trunk
    """,
    "hand": """
        digit of hand; dorsal part of index finger; dorsal part of little finger; dorsal part of middle
        finger; dorsal part of ring finger; dorsal part of thumb; hand; hypothenar region of palm; palm of
        hand; palmar part of index finger; palmar part of little finger; palmar part of middle finger;
        palmar part of ring finger; palmar part of thumb; part of dorsal surface of hand; thenar region of
        palm; finger; thumb
    """,
    "upper extremity": """
        antecubital fossa; anterior surface of forearm; anterior surface of upper arm; dorsal area of wrist;
        palmar area of wrist; posterior surface of elbow; posterior surface of forearm; posterior surface of
        upper arm; upper extremity; upper arm; forearm; wrist joint; elbow joint; upper limb
    """,
    "foot": """
        dorsal part of fifth toe; dorsal part of fourth toe; dorsal part of great toe; dorsal part of second
        toe; dorsal part of third toe; foot; heel; lateral border of sole of foot; lateral part of dorsum of
        foot; lateral part of heel; medial border of sole of foot; medial part of dorsum of foot; medial
        part of heel; plantar part of fifth toe; plantar part of fourth toe; plantar part of great toe;
        plantar part of second toe; plantar part of third toe; sole of forefoot; toe
    """,
    "lower extremity": """
        anterior surface of knee; anterior surface of lower leg; anterior surface of thigh; lateral aspect
        of ankle; lower extremity; medial aspect of ankle; medial surface of thigh; popliteal fossa;
        posterior surface of lower leg; posterior surface of thigh; thigh; lower leg; knee; lower limb
    """,
    "genital": """
        frenulum of labia minora; posterior commissure of labium majorum; clitoris; external genitalia;
        glans penis; labium; labium majus; labium minus; penis; prepuce of clitoris; root of penis; scrotum;
        shaft of penis; vaginal introitus; vulval vestibule; vulva
    """,
}
"""Site -> meanings of codes, "skin of" left out; each stands in CID 4029 or CID 4."""

BODY_PARTS: Mapping[str, str] = {
    "ABDOMEN": "abdomen",
    "ANKLE": "lower extremity",
    "ARM": "upper extremity",
    "BACK": "back",
    "BREAST": "chest",
    "BUTTOCK": "trunk",
    "CALF": "lower extremity",
    "CHEEK": "face",
    "CHEST": "chest",
    "EAR": "ear",
    "ELBOW": "upper extremity",
    "EYELID": "face",
    "FACE": "face",
    "FINGER": "hand",
    "FLANK": "abdomen",
    "FOOT": "foot",
    "FOREARM": "upper extremity",
    "HAND": "hand",
    "HEAD": "head and neck",
    "HEADNECK": "head and neck",
    "KNEE": "lower extremity",
    "LEG": "lower extremity",
    "LOWERLEG": "lower extremity",
    "LOWERLIMB": "lower extremity",
    "NECK": "neck",
    "NOSE": "face",
    "PENIS": "genital",
    "SCALP": "scalp",
    "SCROTUM": "genital",
    "THIGH": "lower extremity",
    "THUMB": "hand",
    "TOE": "foot",
    "TRUNK": "trunk",
    "UPPERARM": "upper extremity",
    "UPPERLIMB": "upper extremity",
    "VULVA": "genital",
    "WRIST": "upper extremity",
}
"""Site of the Defined Terms of Body Part Examined that name one."""


def _sites_of_codes() -> dict[Code, str]:
    site_of = {" ".join(each.split()): site for site, text in SITES.items() for each in text.split(";")}
    every = (*codes.cid4.concepts.values(), *codes.cid4029.concepts.values())
    meanings = ((code, code.meaning.lower().removeprefix(SKIN_OF)) for code in every)
    return {code: site_of[meaning] for code, meaning in meanings if meaning in site_of}


_SITE_OF_CODE = _sites_of_codes()


def site_of_code(value: str, scheme: str) -> str:
    """Return the site of a code, also of one in SNOMED's older style (SRT); empty where there is none."""
    wanted = Code(value, scheme, "")
    return next((site for code, site in _SITE_OF_CODE.items() if code == wanted), "")


def site_of_body_part(term: str) -> str:
    """Return the site of a Body Part Examined; empty where there is none."""
    return BODY_PARTS.get(term.strip().upper().replace(" ", "").replace("_", ""), "")
