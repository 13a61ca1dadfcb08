{
  "algorithm": "Ed25519 over the purpose line and the bytes of manifest.json",
  "signatures": [
    {
      "key_id": "e66225346e18d9977d064d352df0fdc5",
      "signature": "9cJv3mnpAmt1Xvh0s0LMXYELA9fbFH4oqMd99Jxr1hgH7Umfzw7QEN+zmjwu4/Litjq81/64arKlPq7O02evDw=="
    }
  ]
}
