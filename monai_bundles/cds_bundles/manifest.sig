{
  "algorithm": "Ed25519 over the purpose line and the bytes of manifest.json",
  "signatures": [
    {
      "key_id": "e66225346e18d9977d064d352df0fdc5",
      "signature": "e0cbThMhEc65qEZM/6EqBgtjxJBQCLhwPPlORkl1JKd3zz1cgQje0RCJKAOgMPqefgUQYjJwF30DRR0vVSHkAg=="
    }
  ]
}
