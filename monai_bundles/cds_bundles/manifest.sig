{
  "algorithm": "Ed25519 over the purpose line and the bytes of manifest.json",
  "signatures": [
    {
      "key_id": "e66225346e18d9977d064d352df0fdc5",
      "signature": "k6XlNwnNS/oME8G3yfi79vbIkqGc1JHsHnlzmZF+rlD5rvDpp4T5+KJ8SQkwkGTQpjMfRp/6kpvyNCLHN4JBAg=="
    }
  ]
}
