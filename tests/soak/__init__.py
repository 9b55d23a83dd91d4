"""Nothing lost, nothing leaked: vethd under churn, death, refusal and interference, for as long as one likes.

``python -m tests.soak`` runs it all in private hosts; the tests in tests/system run short forms of the same.
"""
