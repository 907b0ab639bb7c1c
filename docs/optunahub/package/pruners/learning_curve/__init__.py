from optuna_lcpruner import LearningCurvePruner


__all__ = ["LearningCurvePruner"]
