"""The adversary: an agent, a transport and a disk that do what they like, against the real rest."""
