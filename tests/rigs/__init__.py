"""Real parts, doubles and stages that the tests share: one module for each, all of them here."""
