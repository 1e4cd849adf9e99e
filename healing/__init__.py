"""Healing: training that recovers what cheap expressions cost, and its controls."""
