"""The words of the output around a lesson's texts.

Rule: a phrase has the same blanks in every language.
"""

from __future__ import annotations

from legacy_chat.lessons.engine.cjk_wrap import space_scripts
from legacy_chat.lessons.engine.lesson import Text

__all__ = ["NAMES", "NOTES", "PHRASES", "filled_in", "phrase"]

NAMES = {
    "ann": Text("Ann", "甲"),
    "bob": Text("Bob", "乙"),
    "cid": Text("Cid", "丙"),
    "dan": Text("Dan", "丁"),
    "eve": Text("Eve", "戊"),
    "fay": Text("Fay", "己"),
    "gil": Text("Gil", "庚"),
}

# By the kind of a note.
NOTES = {
    "present": Text("({who} in the room)", "（聊天室里有{who}）"),
    "connects": Text("{who} connects", "{who}连接"),
    "sends": Text("{who} sends {data}", "{who}发送 {data}"),
    "receives": Text("{who} receives {data}", "{who}收到 {data}"),
    "ends": Text("{who} receives EOF", "{who}收到 EOF"),
    "disconnects": Text("{who} disconnects", "{who}断开连接"),
    "prints": Text("the server prints {data}", "服务器打印 {data}"),
    "logs": Text("log: {data}", "日志：{data}"),
}

PHRASES = {
    "lesson": Text("Lesson {number}: {title}", "第 {number} 课：{title}"),
    "loop": Text("on the loop {loop}", "循环：{loop}"),
    "turn": Text("turn {number}: {ready}", "第 {number} 轮：{ready}"),
    "read": Text("{who} readable", "{who}可读"),
    "write": Text("{who} writable", "{who}可写"),
    "urgent": Text("{who} with urgent data", "{who}有紧急数据"),
    "none": Text("no channel is ready", "没有通道就绪"),
    "raised": Text("raises {error}", "抛出 {error}"),
    "handles": Text("for {error}", "处理 {error}"),
    "held": Text("held back: {count}", "扣住：{count}"),
    "backlog": Text("backlog: {count}", "积压：{count}"),
    "of": Text("{who}: {does}", "{who}：{does}"),
    "interest": Text("interest of {who}: {what}", "{who}：{what}"),
    "item": Text(", ", "、"),
    "and": Text(" and ", "、"),
    "comma": Text(", ", "，"),
    "guest": Text("guest", "客人"),
    "state": Text("{who} {state}", "{who}：{state}"),
    "more turns": Text("… {count} more turns …", "……中间还有 {count} 轮……"),
    "same turns": Text("… {count} more turns like it …", "……同样的还有 {count} 轮……"),
    "more calls": Text("… {count} more calls …", "……还有 {count} 次调用……"),
    "no source": Text("(its source is not installed)", "（没有安装源代码）"),
    "trace": Text("The trace", "跟踪记录"),
    "named": Text("{who} is {channel}", "{who}是 {channel}"),
    "more trace": Text(
        "… {count} more lines: --trace FILE keeps all of them, --html FILE shows them",
        "……还有 {count} 行：--trace FILE 保存全部，--html FILE 生成网页",
    ),
    "question": Text("Question", "提问"),
    "answer": Text("Answer", "答案"),
    "next page": Text(
        "[Space or Enter: continue, q: quit] ", "［空格或回车：继续，q：退出］"
    ),
    "show answer": Text(
        "[Space or Enter: the answer, q: quit] ", "［空格或回车：看答案，q：退出］"
    ),
    "summary": Text("To remember", "记住"),
    "other loop": Text(
        "Another loop gives another result: legacy-chat lesson {number} --loop {loop}",
        "换一种循环，结果就不同：legacy-chat lesson {number} --loop {loop}",
    ),
    "next": Text(
        "Next: legacy-chat lesson {number}", "下一课：legacy-chat lesson {number}"
    ),
    "false": Text("NOT TRUE HERE: ", "在这里不成立："),
    "written": Text("{what}: {path}", "{what}：{path}"),
    "page": Text("The page", "网页"),
}


def phrase(name: str, lang: str, **values: object) -> str:
    """Return one of PHRASES with its blanks filled in."""
    return filled_in(PHRASES[name], lang, "", **values)


def filled_in(text: Text, lang: str, data: str, **values: object) -> str:
    """Fill in the blanks; in Chinese, insert spaces around all values but *data*."""
    words = text.in_language(lang).format(data="\0", **values)
    return (space_scripts(words) if lang == "zh" else words).replace("\0", data)
