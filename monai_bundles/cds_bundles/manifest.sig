{
  "algorithm": "Ed25519 over the purpose line and the bytes of manifest.json",
  "signatures": [
    {
      "key_id": "e66225346e18d9977d064d352df0fdc5",
      "signature": "hDNJU3IdKAL7INQklTEaOw99ZDHp/g0JxtUPTiHogTDTlcK7+1NMwk0ftYluTazCOm5b4X9xDo1fr6+VvqOADw=="
    }
  ]
}
