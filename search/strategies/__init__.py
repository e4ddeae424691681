"""Search strategies: closures, spaces and numbers in, architectures out; no model class, nothing of mm."""

from search.strategies.bilevel import Bilevel, FirstOrder, Unrolled
from search.strategies.darts import DARTS
from search.strategies.evolution import Evolution, EvolutionTrials
from search.strategies.gradient import GradientStrategy
from search.strategies.pc_darts import PCDARTS
from search.strategies.ppo import PPO, PPOTrials
from search.strategies.random_search import Exhausted, RandomSearch, random_architectures
from search.strategies.sampling import RandomTrials, SamplingStrategy
from search.strategies.table import AskTell, Table, best_curve, nas_bench_macro, regret_curve
from search.strategies.told import Trial
from search.strategies.virtual_sgd import check_sgd, learning_rates, virtual_sgd

__all__ = [
    "DARTS",
    "PCDARTS",
    "PPO",
    "AskTell",
    "Bilevel",
    "Evolution",
    "EvolutionTrials",
    "Exhausted",
    "FirstOrder",
    "GradientStrategy",
    "PPOTrials",
    "RandomSearch",
    "RandomTrials",
    "SamplingStrategy",
    "Table",
    "Trial",
    "Unrolled",
    "best_curve",
    "check_sgd",
    "learning_rates",
    "nas_bench_macro",
    "random_architectures",
    "regret_curve",
    "virtual_sgd",
]
