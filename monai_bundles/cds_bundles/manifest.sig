{
  "algorithm": "Ed25519 over the purpose line and the bytes of manifest.json",
  "signatures": [
    {
      "key_id": "e66225346e18d9977d064d352df0fdc5",
      "signature": "NcpLWOPlbBeIsy4+q3OcdpW16FK9tX7OP0uVdEk9yo4S4VSpB+KL2dVYlC0iaqcwjaNyizJBnrhibSmenkk1DA=="
    }
  ]
}
