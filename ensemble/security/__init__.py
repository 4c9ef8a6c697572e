"""Who may call: the server's certificates, tokens, and what each token may use."""
