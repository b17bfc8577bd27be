"""Tasks: verifiable problems, the conversation that poses one, the check of a reply, and feedback."""

from llmctl.tasks.registry import TASKS, get_task, list_tasks
from llmctl.tasks.types import Feedback, Problem, Task, TaskInfo

__all__ = ["TASKS", "Feedback", "Problem", "Task", "TaskInfo", "get_task", "list_tasks"]
