{
  "algorithm": "Ed25519 over the purpose line and the bytes of manifest.json",
  "signatures": [
    {
      "key_id": "e66225346e18d9977d064d352df0fdc5",
      "signature": "oKLbrz4BcHX70U0sHKNnUWAIaGHx6j/XRNavfZMsHnm3vOUfJTwU9g0z/WSuOWwAf93il02YM2UFC+1q9oXqBw=="
    }
  ]
}
