"""How good a detector, a tracker or a classifier is, by the rules that published figures follow. Desk only."""
