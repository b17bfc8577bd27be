"""MLLM-MSR: multimodal sequential recommendation.

Ye et al., "Harnessing Multimodal Large Language Models for Multimodal Sequential Recommendation"
(arXiv 2408.09698).

    from llmctl.msr import MsrRecipe, run_msr
    from llmctl.runs import Run, load_recipe

    recipe = load_recipe(MsrRecipe, "msr/demo")
    with Run.open("runs/msr/demo", recipe, "msr run") as run:
        run_msr(run, recipe)["pictures"]["auc"]

A run's phases: `prepare` (data and frozen candidate lists), `items` and `users` (summaries, through the
sampler and `summary_cache`), `cases` and `recommend` (questions and training rows), `phases` (training,
evaluation), `baselines`, `comparisons`, `report`.
"""

from llmctl.lazy import lazy_names

_WHERE = {
    "Item": "types",
    "History": "types",
    "CandidateList": "types",
    "MsrRecipe": "recipe",
    "PreparedData": "data.prepared",
    "prepare_data": "data.prepare",
    "open_prepared": "data.prepared",
    "rank_counts": "evaluation.metrics",
    "user_metrics": "evaluation.metrics",
    "calibrate": "evaluation.calibration",
    "Baseline": "baselines",
    "make_baseline": "baselines",
    "run_baselines": "baselines",
    "ModelScores": "evaluation.scores",
    "RankedList": "recommender.scoring",
    "ItemSummary": "summaries.items",
    "UserBlock": "summaries.users",
    "Recommendation": "recommender.rank_user",
    "BaselineEntry": "baselines",
    "BASELINES": "baselines",
    "record_scores": "evaluation.scores",
    "run_msr": "run",
    "MsrPhases": "phases",
    "CaseReader": "recommender.examples",
    "SummaryCache": "summaries.cache",
    "summarize_items": "summaries.items",
    "summarize_users": "summaries.users",
    "recommend_to": "recommender.rank_user",
}
__all__ = list(_WHERE)

__getattr__ = lazy_names(__name__, _WHERE)
