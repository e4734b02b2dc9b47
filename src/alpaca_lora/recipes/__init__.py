"""Recipes: named YAML configs."""
