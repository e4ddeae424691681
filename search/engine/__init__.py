"""Running a search or a training: mmengine loops, exact resume, checkpoints, history, several processes.

Importing it registers loops, hooks, runners and the strategies under the scope "search".
"""

from search.registry import STRATEGIES
from search.strategies.darts import DARTS
from search.strategies.evolution import EvolutionTrials
from search.strategies.one_shot import SinglePath
from search.strategies.pc_darts import PCDARTS
from search.strategies.ppo import PPOTrials
from search.strategies.sampling import RandomTrials

from .autocast import AutocastOptimWrapper
from .bilevel_loop import BilevelLoop
from .errors import UserError
from .loops import TrainLoop
from .progress import ProgressHook
from .run import SearchResult
from .runner import ExactRunner
from .scoring import SupernetValLoop
from .search import search
from .search_runner import SearchRunner
from .single_path import OneShotRunner, PathValLoop, SinglePathLoop
from .train import TrainResult, evaluate, train

STRATEGIES.register_module(name="DARTS", module=DARTS, force=True)
STRATEGIES.register_module(name="PCDARTS", module=PCDARTS, force=True)
STRATEGIES.register_module(name="SinglePath", module=SinglePath, force=True)
STRATEGIES.register_module(name="RandomSearch", module=RandomTrials, force=True)
STRATEGIES.register_module(name="Evolution", module=EvolutionTrials, force=True)
STRATEGIES.register_module(name="PPO", module=PPOTrials, force=True)

__all__ = [
    "AutocastOptimWrapper",
    "BilevelLoop",
    "ExactRunner",
    "OneShotRunner",
    "PathValLoop",
    "ProgressHook",
    "SearchResult",
    "SearchRunner",
    "SinglePathLoop",
    "SupernetValLoop",
    "TrainLoop",
    "TrainResult",
    "UserError",
    "evaluate",
    "search",
    "train",
]
