"""The models' room: a picture goes in, findings and result objects come out.

It reads bundles only after their digest was checked, keeps the truth in the database and never talks to a
PACS.
"""
