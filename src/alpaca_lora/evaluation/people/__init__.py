"""People who rate answers: the page, who is given which pairs, and the file of their ratings."""
