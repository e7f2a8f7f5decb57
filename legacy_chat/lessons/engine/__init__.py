"""Machinery of the lessons.

lesson.py     a lesson's texts, steps, excerpts of code and claims
harness.py    the room, its peers and the loop of one run
runner.py     runs a lesson and checks its claims
render.py     prints what happened beside the code that made it happen
cjk_wrap.py   columns and line breaks, with wide characters
pager.py      page by page at a terminal
"""
