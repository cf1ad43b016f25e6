"""The ledger and the journal, both kept in a create-only store."""

from __future__ import annotations

from dpgmm_dist.budget.balance import Balance
from dpgmm_dist.budget.budget import Budget
from dpgmm_dist.budget.journal import Journal
from dpgmm_dist.budget.ledger import Ledger
from dpgmm_dist.budget.records import Charge, ChargeRecord, random_release_id, rho_of_mu
from dpgmm_dist.budget.refusal import BudgetExceeded

__all__ = [
    "Balance",
    "Budget",
    "BudgetExceeded",
    "Charge",
    "ChargeRecord",
    "Journal",
    "Ledger",
    "random_release_id",
    "rho_of_mu",
]
