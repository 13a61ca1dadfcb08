"""What happened to every study, in SQL, with an append-only audit trail. It knows nobody of ours."""
