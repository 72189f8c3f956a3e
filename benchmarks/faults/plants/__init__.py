"""The plants: each module holds faults of one sort, each function plants one of them and measures what it did."""
