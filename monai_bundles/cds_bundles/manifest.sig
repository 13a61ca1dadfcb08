{
  "algorithm": "Ed25519 over the purpose line and the bytes of manifest.json",
  "signatures": [
    {
      "key_id": "e66225346e18d9977d064d352df0fdc5",
      "signature": "FTvqIsmGuMR0UekUkmY1Vy/fzb4kbwLdM+btZFh5NDAuotvHsipUH2Vf9EamCFbQuP6lpjafjoPVMhODFTN4Aw=="
    }
  ]
}
