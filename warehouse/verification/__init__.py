"""Whether what is stored agrees with itself: ledger, ids, rollups, sessions and persons against `events`.

Only reads. `events` is the truth that everything else is compared with; the ledger is what `events` is compared with.
"""
