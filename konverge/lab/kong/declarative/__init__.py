"""Declarative configuration: text -> document -> validated -> entities, with Kong's phases and Kong's words."""
