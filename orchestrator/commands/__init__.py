"""What commands do; `orchestrator.cli` says what they are called and what options they take.

These modules import all that a command needs, which takes seconds: the command line imports them
when one of their commands was typed.
"""
