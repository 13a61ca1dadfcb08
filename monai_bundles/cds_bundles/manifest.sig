{
  "algorithm": "Ed25519 over the purpose line and the bytes of manifest.json",
  "signatures": [
    {
      "key_id": "e66225346e18d9977d064d352df0fdc5",
      "signature": "jOMlo1gug6Fqnc5/BqGPtUDHm2HCFWh4+cAG7SZxwnsNEIBhKoDBymlA2l1MP+ZU2RLN8bkUWUVkYIVvzv3hAA=="
    }
  ]
}
