"""Small chat templates, each about one habit of Jinja2 or Python that real chat templates lean on.

A case is (name, template) or (name, template, variables). It is rendered once for every
conversation in CONVERSATIONS unless its variables carry `messages` of their own.
"""

USER = [{"role": "user", "content": "Write a function."}]
CONVERSATIONS = {
    "user": USER,
    "system": [{"role": "system", "content": "  You are terse.\n"}, *USER],
    "turns": [
        {"role": "system", "content": "Sys"},
        {"role": "user", "content": "One\n\n  two  "},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nanswer: a=b, c=d"},
        {"role": "user", "content": "naïve Ünïcode ß 日本語 🙂👩‍👩‍👧 <b>&amp;'\"</b> \\ \t end"},
    ],
}

CHATML = """\
{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{% endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

ALTERNATING = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}\
{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}\
{% set system_message = false %}{% endif %}{% for message in loop_messages %}\
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Roles must alternate: ' ~ message['role'] ~ ' at ' ~ loop.index) }}{% endif %}\
{% if loop.index0 == 0 and system_message != false %}\
{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}\
{% else %}{% set content = message['content'] %}{% endif %}\
{% if message['role'] == 'user' %}{{ '[INST] ' + content.strip() + ' [/INST]' }}\
{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""

DEFAULT_SYSTEM = """\
{%- if messages[0]['role'] == 'system' -%}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else -%}
    {{- '<|im_start|>system\\nYou are a model.<|im_end|>\\n' }}
{%- endif -%}
{%- for message in messages -%}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) -%}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

TOOL = {
    "type": "function",
    "function": {
        "name": "lookup",
        "description": "Finds <things> & \"more\" – é 🙂",
        "parameters": {"type": "object", "properties": {"q": {"type": "string"}, "n": {"type": "integer", "default": 1e16}}},
    },
}
VALUES = {
    "none": None,
    "yes": True,
    "no": False,
    "int": 42,
    "negative": -7,
    "zero": 0,
    "float": 1.5,
    "whole": 2.0,
    "tiny": 1e-07,
    "huge": 1e16,
    "text": "Aé🙂\n'q' \"d\" \\ \x7f\u2028",
    "list": [1, "two", None, [True, 2.5], {"k": "v"}],
    "dict": {"b": 1, "a": [1, 2], "c": {"d": None}},
    "empty": "",
    "nothing": [],
}

ALL_MESSAGES = [
    ("chatml", CHATML),
    ("default-system", DEFAULT_SYSTEM),
    ("alternating", ALTERNATING, {"bos_token": "<s>", "eos_token": "</s>"}),
    ("bos-undefined", "{{ bos_token }}{{ messages[0].content }}"),
    (
        "strip-methods",
        "{% for m in messages %}[{{ m.content.strip() }}|{{ m.content.lstrip() }}|{{ m.content.rstrip() }}"
        "|{{ m.content.strip(' \\nYd') }}|{{ m.content.lstrip('\\n') }}|{{ m.content.rstrip('.') }}]{% endfor %}",
    ),
    (
        "split-methods",
        "{% for m in messages %}{{ m.content.split('</think>')[-1] }}#{{ m.content.split()|length }}"
        "#{{ m.content.split(' ', 1)[-1] }}#{{ m.content.rsplit(' ', 1)[0] }}#{{ m.content.splitlines()|join('/') }}"
        "#{{ m.content.partition('=')[2] }}#{{ m.content.rpartition('=')[0] }}\n{% endfor %}",
    ),
    (
        "case-methods",
        "{% for m in messages %}{{ m.content.title() }}|{{ m.content.upper() }}|{{ m.content.lower() }}"
        "|{{ m.content.capitalize() }}|{{ m.role.title() }}|{{ m.role | title }}|{{ m.role | upper }}"
        "|{{ m.content.swapcase() }}|{{ m.content.casefold() }}\n{% endfor %}",
    ),
    (
        "find-methods",
        "{% for m in messages %}{{ m.content.startswith('W') }} {{ m.content.endswith('.') }} {{ m.content.find('o') }}"
        " {{ m.content.rfind('e') }} {{ m.content.count('n') }} {{ m.content.find('zzz') }}"
        " {{ m.content.startswith(('W', 'O')) }} {{ '日' in m.content }}\n{% endfor %}",
    ),
    (
        "replace-methods",
        "{% for m in messages %}{{ m.content.replace('e', 'E') }}|{{ m.content.replace('e', 'E', 1) }}"
        "|{{ m.content | replace('\\n', '\\\\n') }}|{{ m.content.removeprefix('Wr') }}|{{ m.content.removesuffix('.') }}\n{% endfor %}",
    ),
    (
        "is-methods",
        "{% for w in ['abc', 'ABC', 'a1', '12', ' ', '', 'é', '²', 'Title Case'] %}{{ w.isalpha() }} {{ w.isdigit() }}"
        " {{ w.isalnum() }} {{ w.isspace() }} {{ w.isupper() }} {{ w.islower() }} {{ w.isnumeric() }} {{ w.istitle() }}\n{% endfor %}",
    ),
    (
        "padding-methods",
        "{% for m in messages %}{{ m.role.ljust(10) }}|{{ m.role.rjust(10, '.') }}|{{ m.role.center(11, '*') }}|{{ '7'.zfill(3) }}"
        "|{{ m.role | center(12) }}|{{ 'a' * 3 }}\n{% endfor %}",
    ),
    (
        "slices",
        "{% for m in messages[::-1] %}{{ m.role }} {{ m.content[:5] }} {{ m.content[-3:] }} {{ m.content[::-1] }}"
        " {{ m.content[1:8:2] }} {{ m.content[0] }} {{ m.content[-1] }}\n{% endfor %}{{ messages[1:]|length }}"
        "{{ messages[-1].role }}{{ messages[:-1]|length }}{{ messages[5:]|length }}",
    ),
    (
        "namespaces",
        "{% set ns = namespace(seen=0, text='', last=none) %}{% for m in messages %}{% set ns.seen = ns.seen + 1 %}"
        "{% set ns.text = ns.text ~ m.role ~ ns.seen %}{% set ns.last = m %}{% endfor %}{{ ns.seen }}{{ ns.text }}{{ ns.last.role }}",
    ),
    (
        "set-in-loop-stays-inside",
        "{% set x = 'outer' %}{% for m in messages %}{% set x = m.role %}{{ x }} {% endfor %}{{ x }}"
        "{% if true %}{% set x = 'if' %}{% endif %}{{ x }}",
    ),
    (
        "loop-controls",
        "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}{{ loop.index }}{{ m.role }}"
        "{% if m.role == 'assistant' %}{% break %}{% endif %},{% endfor %}",
    ),
    (
        "loop-variables",
        "{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}"
        "{{ loop.length }}{{ loop.cycle('a', 'b') }}{{ loop.changed(m.role) }}{% if loop.previtem %}<{{ loop.previtem.role }}{% endif %}"
        "{% if loop.nextitem is defined %}>{{ loop.nextitem.role }}{% endif %} {% endfor %}",
    ),
    ("loop-filter", "{% for m in messages if m.role != 'system' %}{{ loop.index }}/{{ loop.length }}{{ m.role }} {% else %}none{% endfor %}"),
    ("loop-else", "{% for m in messages if m.role == 'tool' %}x{% else %}no tools{% endfor %}"),
    (
        "whitespace-control",
        "  {% for m in messages %}\n    {%- if true %}\n  A {{ m.role }}\n    {% endif -%}\n\n  B\n  {#- gone -#}\n  C\n"
        "  {%+ if true %}kept{% endif %}\n{% endfor %}\n\t{% if false %}\n{% endif %}end\n",
    ),
    ("comments", "a\n  {# a comment #}\nb {# inline #} c\n{#- tight -#}\n d\n"),
    ("trailing-newline", "{{ messages[0].role }}\n"),
    ("two-trailing-newlines", "{{ messages[0].role }}\n\n"),
    ("windows-newlines", "a\r\n{% if true %}\r\nb\r\n{% endif %}\r\nc"),
    ("raw", "{% raw %}{{ not }} {% rendered %}{% endraw %}{{ messages|length }}"),
    (
        "macros",
        "{%- macro turn(role, content, end='<end>', upper=false) %}<{{ role | upper if upper else role }}>{{ content }}{{ end }}"
        "{% endmacro %}{% for m in messages %}{{ turn(m.role, m.content) }}{{ turn('x', content='y', upper=true, end='') }}{% endfor %}",
    ),
    (
        "macro-recursive",
        "{%- macro show(value) -%}{%- if value is mapping -%}({% for k, v in value.items() %}{{ k }}={{ show(v) }};{% endfor %})"
        "{%- elif value is iterable and value is not string -%}[{% for v in value %}{{ show(v) }},{% endfor %}]"
        "{%- else -%}{{ value }}{%- endif -%}{%- endmacro -%}{{ show(values) }}",
        {"values": VALUES, "messages": USER},
    ),
    (
        "call-block",
        "{% macro wrap(tag) %}<{{ tag }}>{{ caller() }}</{{ tag }}>{% endmacro %}{% call wrap('b') %}{{ messages[0].content }}{% endcall %}",
    ),
    ("set-block", "{% set text %}{{ messages[0].role }} said {% endset %}{{ text | upper }}{{ text | length }}"),
    ("filter-block", "{% filter upper %}{{ messages[0].content }}{% endfilter %}"),
    (
        "tests",
        "{% for k, v in values.items() %}{{ k }}:{{ v is defined }} {{ v is none }} {{ v is string }} {{ v is mapping }} {{ v is number }}"
        " {{ v is boolean }} {{ v is sequence }} {{ v is iterable }} {{ v is integer }} {{ v is float }} {{ v is true }} {{ v is false }}"
        " {{ v is undefined }}{{ ' truthy' if v else ' falsy' }}\n{% endfor %}{{ missing is defined }} {{ missing is none }}"
        " {{ missing is undefined }} {{ missing is string }} {{ 4 is even }} {{ 4 is odd }} {{ 4 is divisibleby(2) }} {{ 4 is eq(4) }} {{ 4 in [4] }}",
        {"values": VALUES, "messages": USER},
    ),
    (
        "prints-as-python",
        "{% for k, v in values.items() %}{{ k }}={{ v }} ~{{ '' ~ v }} |{{ v | string }}\n{% endfor %}{{ values }}{{ [1.0, 'a'] }}{{ (1, 2) }}{{ (1,) }}"
        "{{ {'a': none} }}{{ messages[0] }}",
        {"values": VALUES, "messages": USER},
    ),
    (
        "tojson",
        "{% for k, v in values.items() %}{{ k }}={{ v | tojson }}\n{% endfor %}{{ tools | tojson }}\n{{ tools | tojson(indent=4) }}\n"
        "{{ tools[0] | tojson(indent=2) }}{{ [] | tojson(indent=2) }}{{ {} | tojson(indent=2) }}\n{{ values.dict | tojson(sort_keys=true) }}\n"
        "{{ values.text | tojson(ensure_ascii=true) }}{{ values.dict | tojson(separators=(',', ':')) }}{{ '<>&\\'' | tojson }}",
        {"values": VALUES, "tools": [TOOL], "messages": USER},
    ),
    ("tools-none", "{{ tools is none }}{{ tools is defined }}{{ documents is none }}{% if tools %}T{% else %}no{% endif %}{% if not tools %}N{% endif %}"),
    (
        "thinking-flag",
        "{{ enable_thinking is defined and enable_thinking is false }}{% if enable_thinking is defined and enable_thinking is false %}"
        "<think>\n\n</think>\n\n{% endif %}{{ enable_thinking | default(true) }}",
    ),
    ("thinking-off", "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>{% endif %}{{ enable_thinking }}", {"enable_thinking": False}),
    (
        "dict-methods",
        "{% for m in messages %}{% for k, v in m.items() %}{{ k }}={{ v }};{% endfor %}{{ m.get('role') }}{{ m.get('name', 'anon') }}{{ m.get('no') }}"
        "{{ m.keys() | list }}{{ m.values() | list | length }}{{ 'role' in m }}{{ 'x' not in m }}\n{% endfor %}",
    ),
    (
        "missing-keys",
        "{{ messages[0].nothing }}|{{ messages[0]['nothing'] }}|{{ messages[9] }}|{{ messages[0].nothing is defined }}|{{ messages[0].tool_calls or 'none' }}"
        "|{{ 'yes' if messages[0].tool_calls }}|{{ messages[0].nothing | default('d') }}|{{ none | default('d') }}|{{ none | default('d', true) }}",
    ),
    (
        "filters",
        "{{ messages | map(attribute='role') | join(',') }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }}"
        " {{ messages | rejectattr('role', 'eq', 'user') | map(attribute='role') | list }} {{ messages | first | length }} {{ (messages | last).role }}"
        " {{ [3, 1, 2] | sort }} {{ [3, 1, 2] | sort(reverse=true) | join('-') }} {{ [1, 1, 2] | unique | list }} {{ [1, 2] | sum }} {{ [1, 5] | max }}"
        " {{ 'abc' | reverse }} {{ [1, 2] | reverse | list }} {{ 'a b' | wordcount }} {{ ' x ' | trim }} {{ 'x' | length }} {{ 3.7 | int }} {{ '4' | int + 1 }}"
        " {{ 2.567 | round(2) }} {{ -3 | abs }} {{ {'b': 1, 'a': 2} | dictsort }} {{ {'b': 1} | items | list }} {{ 'abc' | list }} {{ '<b>' | e }} {{ '<b>' | safe }}"
        " {{ [1, 2, 3, 4, 5] | batch(2) | list }} {{ [0, 1, none] | select | list }} {{ ['a', 'B'] | map('upper') | list }} {{ 'x' | default('y') }} {{ 3 | float }}",
    ),
    ("indent-filter", "{{ messages[-1].content | indent(2) }}|{{ messages[-1].content | indent(4, true) }}|{{ 'a\n\nb' | indent(2, blank=true) }}"),
    (
        "operators",
        "{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 4 / 2 }} {{ 2 ** 3 }} {{ 1 + 1.0 }} {{ not true }} {{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }}"
        " {{ [1] + [2] }} {{ 'a' + 'b' }} {{ 'a' ~ 1 ~ none ~ true ~ 1.0 }} {{ 1 == 1.0 }} {{ 'a' < 'b' }} {{ [1, 2] == [1, 2] }} {{ none == false }}"
        " {{ (1 and 0) }} {{ (0 or 'x') }} {{ '' or 'empty' }} {{ 1 if 0 else 2 }} {{ true and messages }}",
        {"messages": USER},
    ),
    ("string-formatting", "{{ '%s is %d or %.2f' % ('x', 3, 1.5) }} {{ '%s' % messages[0].role }} {{ '%s-%s' | format('a', 1) }} {{ '{} and {}'.format(1, 'b') }} {{ '{0}{x}'.format(1, x=2) }}"),
    ("join-method", "{{ ', '.join(['a', 'b']) }}{{ ''.join(messages | map(attribute='role') | list) }}"),
    ("strings-iterate", "{% for c in messages[0].content[:3] %}{{ c }}.{% endfor %}{{ messages[0].content | first }}{{ messages[0].content | last }}"),
    ("range", "{% for i in range(3) %}{{ i }}{% endfor %}{% for i in range(5, 0, -2) %}{{ i }}{% endfor %}{{ range(3) | list }}"),
    ("unpacking", "{% for a, b in [(1, 2), (3, 4)] %}{{ a }}{{ b }}{% endfor %}{% set a, b = 5, 6 %}{{ a }}{{ b }}"),
    ("dict-literals", "{% set d = {'a': 1, 'b': {'c': [1, 2]}} %}{{ d.a }}{{ d['b']['c'][1] }}{{ d | length }}{{ dict(x=1, y='z') }}{{ d.b.c[-1] }}"),
    ("with-block", "{% with x = messages[0].role, y = 2 %}{{ x }}{{ y }}{% endwith %}{{ x is defined }}"),
    ("strftime", "{{ strftime_now('%d %b %Y') }}|{{ strftime_now('%Y-%m-%d') }}|{{ strftime_now('%A, %B %d, %Y %H:%M:%S %j %p %I %y %m %%') }}|{{ strftime_now('%-d/%-m') }}|{{ strftime_now is defined }}"),
    ("string-escapes", "{{ 'tab\\there\\nnew \\'q\\' \\\\ \\x41 \\u00e9' }}{{ \"dq \\\"x\\\"\" }}{{ 'juxta' 'posed' }}"),
    ("unicode", "{{ messages[-1].content }}|{{ messages[-1].content | length }}|{{ messages[-1].content | upper }}|{{ '𝔘' | length }}{{ 'ﬁ'.upper() }}{{ 'İ'.lower() | length }}"),
    ("no-autoescape", "{{ messages[-1].content }}{{ '<a href=\"x\">&</a>' }}"),
    (
        "generation-tag",
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}"
        "{{ m.content }}{%- generation -%} x {%- endgeneration -%}{% endif %}{% endfor %}",
    ),
    ("raise", "{% if messages[0].role != 'system' %}{{ raise_exception('A system message is needed, not ' + messages[0].role) }}{% endif %}ok"),
    ("raise-on-undefined-attribute", "{{ nothing.at.all }}"),
    ("raise-on-undefined-call", "{{ nothing() }}"),
    ("raise-on-none-plus-text", "{{ none + 'x' }}"),
    ("raise-on-unknown-filter", "{{ messages | nosuchfilter }}"),
    ("raise-on-unknown-method", "{{ 'x'.nosuchmethod() }}"),
    ("raise-on-mutation", "{% set l = [] %}{% set _ = l.append(1) %}{{ l }}"),
    ("raise-on-syntax", "{% if %}"),
    ("raise-on-unclosed", "{% for m in messages %}"),
    ("raise-on-do", "{% do messages %}"),
    ("raise-on-include", "{% include 'x' %}"),
    ("content-parts", "{% for p in messages[0].content %}{% if p.type == 'text' %}{{ p.text }}{% elif 'image' in p or p['type'] == 'image' %}<image>{% endif %}{% endfor %}",
     {"messages": [{"role": "user", "content": [{"type": "text", "text": "see"}, {"type": "image", "url": "x"}]}]}),
    (
        "tool-calls",
        "{% for m in messages %}{% if m.tool_calls %}{% for tc in m.tool_calls %}{% if tc.function %}{% set tc = tc.function %}{% endif %}"
        "{{ tc.name }}({{ tc.arguments if tc.arguments is string else tc.arguments | tojson }}){% endfor %}{% else %}{{ m.content }}{% endif %}{% endfor %}",
        {"messages": [*USER, {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"x": 1.0, "y": "é"}}}, {"name": "g", "arguments": "{}"}]}]},
    ),
    (
        "loop-recursive",
        "{% for n in tree recursive %}{{ n.v }}{% if n.c %}({{ loop(n.c) }}){% endif %}{{ loop.depth }}{% endfor %}",
        {"messages": USER, "tree": [{"v": 1, "c": [{"v": 2, "c": []}, {"v": 3}]}]},
    ),
    (
        "message-position",
        "{% set ns = namespace(last=-1) %}{% for m in messages[::-1] %}{% set index = (messages | length - 1) - loop.index0 %}"
        "{% if ns.last == -1 and m.role == 'user' and not (m.content.startswith('<tool_response>') and m.content.endswith('</tool_response>')) %}"
        "{% set ns.last = index %}{% endif %}{% endfor %}{{ ns.last }}{% for m in messages %}{% if loop.index0 > ns.last %}+{% endif %}"
        "{% if loop.last or messages[loop.index0 + 1].role != 'user' %}.{% endif %}{% endfor %}",
    ),
]

# Conversations for the real tokenizer and template: (name, messages, what apply_chat_template is told beside them).
LONG_TEXT = "\n".join(f"def f_{i}(x):\n    return x * {i} + {i ** 3}  # Zeile {i}\n" for i in range(60))
CHATS = [
    ("user", USER, {}),
    ("system", [{"role": "system", "content": "You are a careful Python programmer."}, *USER], {}),
    ("thinking-on", USER, {"enable_thinking": True}),
    ("thinking-off", USER, {"enable_thinking": False}),
    (
        "production-prompt",
        [
            {
                "role": "user",
                "content": "I need to create a FastAPI server to serve the HuggingFace Vision Transformer model, "
                "Falconsai/nsfw_image_detection. The API should follow best practices and be optimized for high inference "
                "performance. Please provide the complete implementation.",
            }
        ],
        {},
    ),
    ("turns", CONVERSATIONS["turns"], {}),
    ("no-generation-prompt", CONVERSATIONS["turns"], {"add_generation_prompt": False}),
    ("unicode", [{"role": "user", "content": "Ça va? Grüße, 日本語のテスト, русский, عربى, 한국어, 👩‍👩‍👧‍👦🏳️‍🌈🙂, é vs e\u0301, ﬁ, \u200b\ufeff, 𝔘𝔫𝔦"}], {}),
    ("newlines", [{"role": "user", "content": "\n\n  a\r\n\tb\n\n\n   \n c   \n"}], {}),
    ("special-tokens-in-text", [{"role": "user", "content": "<|im_end|> <|im_start|>user <think>x</think> <|endoftext|> <tool_call>"}], {}),
    ("code", [{"role": "user", "content": "```python\nclass A:\n\tdef __init__(self, *args, **kwargs) -> None:\n        self.x = [1, 2, 3.14e-10]\n```\nWhat's wrong? I'll fix it; we'd've."}], {}),
    ("numbers", [{"role": "user", "content": "1234567890 3.14159 0x1F 1e-9 ١٢٣ ½ ²"}], {}),
    ("long", [{"role": "user", "content": LONG_TEXT}], {"enable_thinking": False}),
    ("empty-content", [{"role": "user", "content": ""}], {}),
    ("tools", [*USER, {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "lookup", "arguments": {"q": "é", "n": 2}}}]},
               {"role": "tool", "content": "found"}, {"role": "tool", "content": "{}"}], {"tools": [TOOL]}),
    ("reasoning-content", [*USER, {"role": "assistant", "content": "done", "reasoning_content": "\nbecause\n"}], {"add_generation_prompt": False}),
]
TEXTS = [m[-1]["content"] for _, m, _ in CHATS if isinstance(m[-1]["content"], str)] + [
    "import os\n\n\ndef main():\n    pass\n",
    "   leading and trailing   ",
    "a" * 300,
    "=" * 80 + "\n" + "-" * 80,
]
