{
  "algorithm": "Ed25519 over the purpose line and the bytes of manifest.json",
  "signatures": [
    {
      "key_id": "e66225346e18d9977d064d352df0fdc5",
      "signature": "NNGJmSrtGTjC3nlGHbC3hKaFayUMOdzzO+0IqdZtlNq1GwS2QHnMyvhJW4peDc/qOjWX4Ie7vTerQ9WlolScBg=="
    }
  ]
}
