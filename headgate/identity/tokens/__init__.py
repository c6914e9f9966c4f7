"""Tokens: their form, their signature, their claims, and the person whom they name."""
