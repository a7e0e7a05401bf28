"""The questions that can be asked about a region.

The English and Chinese questions of `label`, `explanation`, `brief` and `detailed` are, word for word, the ones the
Perceive Anything Model was trained on (arXiv 2506.05302, released notebooks); another wording gives other answers.
`text` was not among them; its questions are ours.
"""

from __future__ import annotations

from pam_core.types import Task

CLIP_TASK = "video"
"""The task of a question about a clip."""

VIDEO_QUESTIONS = {
    "en": "Provide a caption for this subject in this video.\nPrevious caption: {history}",
    "zh": "对该视频中的目标对象提供一个描述。\n历史描述：{history}",
}
"""The question about a clip of a video, by language code, and what stands for the caption of the clip before."""

NO_HISTORY = {"en": "None", "zh": "无"}

BUILTIN_TASKS = (
    Task(
        "label",
        "What it is, in a word or two",
        {
            "en": "Classify this subject and provide its label.",
            "zh": "对该目标对象进行分类并提供标签",
        },
    ),
    Task(
        "explanation",
        "What such a thing is and what it is for",
        {
            "en": "Classify this subject and provide the label and its definition.",
            "zh": "对该目标对象进行分类并提供标签和名词功能解释",
        },
    ),
    Task(
        "brief",
        "A caption of one sentence",
        {
            "en": "Provide a concise caption for this subject.",
            "zh": "对该目标对象提供一个概括的描述",
        },
    ),
    Task(
        "detailed",
        "A caption with everything that is known",
        {
            "en": "Provide a comprehensive and detailed description for this subject.",
            "zh": "对该目标对象提供一个全面且详细的描述",
        },
    ),
    Task(
        "text",
        "The words written on it",
        {
            "en": "Read the text written on this subject.",
            "zh": "读出该目标对象上的文字",
        },
    ),
)
