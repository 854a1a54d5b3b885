"""A stand-in Kong Gateway 3.9, DB-less: Admin, Status and proxy listeners that behave like the real ones.

What it does and what it leaves out: docs/reference/lab-kong.md.
"""
