"""Translation by change: every stage remembers its results and what they were read from.

The stages run in a fixed order, from source objects to the lists of the document. Each is told which keys of the
snapshot were touched and what the stage before has changed, redoes only what depends on that, and tells the next.
A full translation is the case in which everything was touched, so both give the same bytes.
"""
