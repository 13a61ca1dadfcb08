{
  "algorithm": "Ed25519 over the purpose line and the bytes of manifest.json",
  "signatures": [
    {
      "key_id": "e66225346e18d9977d064d352df0fdc5",
      "signature": "iTBNWU6A8y/A2JGspWq6Nfl1UrNx/e9zejCymuYdhlduMM59luYlz8VFW5gDiIynMTS7ryo96si01Blmt1yTAQ=="
    }
  ]
}
