"""Small exercises of our own, so that a simple request gets a simple answer.

Each is written once and spelled out in several phrasings and names; the toys see far too
little code to learn such things from libraries.
"""

import random

# (what it does, candidate names, parameters, body with {0}, {1} for the parameters)
NUMBERS = ("numbers", "values", "items", "xs", "nums")
TEXT = ("text", "s", "string", "line", "word")
EXERCISES = [
    ("returns the sum of a list of numbers", ("sum_numbers", "sum_list", "total"), (NUMBERS,), "    total = 0\n    for number in {0}:\n        total += number\n    return total"),
    ("adds up all numbers in a list", ("add_all", "sum_of"), (NUMBERS,), "    return sum({0})"),
    ("returns the product of a list of numbers", ("product", "multiply_all"), (NUMBERS,), "    result = 1\n    for number in {0}:\n        result *= number\n    return result"),
    ("returns the largest number in a list", ("largest", "find_max", "maximum"), (NUMBERS,), "    largest = {0}[0]\n    for number in {0}[1:]:\n        if number > largest:\n            largest = number\n    return largest"),
    ("returns the smallest number in a list", ("smallest", "find_min", "minimum"), (NUMBERS,), "    smallest = {0}[0]\n    for number in {0}[1:]:\n        if number < smallest:\n            smallest = number\n    return smallest"),
    ("returns the mean of a list of numbers", ("mean", "average"), (NUMBERS,), "    if not {0}:\n        raise ValueError('the list is empty')\n    return sum({0}) / len({0})"),
    ("returns the median of a list of numbers", ("median",), (NUMBERS,), "    ordered = sorted({0})\n    middle = len(ordered) // 2\n    if len(ordered) % 2:\n        return ordered[middle]\n    return (ordered[middle - 1] + ordered[middle]) / 2"),
    ("returns only the even numbers of a list", ("even_numbers", "keep_even"), (NUMBERS,), "    return [number for number in {0} if number % 2 == 0]"),
    ("returns only the odd numbers of a list", ("odd_numbers", "keep_odd"), (NUMBERS,), "    return [number for number in {0} if number % 2 == 1]"),
    ("returns the squares of a list of numbers", ("squares", "square_all"), (NUMBERS,), "    return [number ** 2 for number in {0}]"),
    ("removes duplicates from a list and keeps the order", ("unique", "remove_duplicates", "dedupe"), (NUMBERS,), "    seen = set()\n    result = []\n    for item in {0}:\n        if item not in seen:\n            seen.add(item)\n            result.append(item)\n    return result"),
    ("counts how often each item occurs in a list", ("count_items", "frequencies"), (NUMBERS,), "    counts = {{}}\n    for item in {0}:\n        counts[item] = counts.get(item, 0) + 1\n    return counts"),
    ("sorts a list with bubble sort", ("bubble_sort",), (NUMBERS,), "    result = list({0})\n    for i in range(len(result)):\n        for j in range(len(result) - i - 1):\n            if result[j] > result[j + 1]:\n                result[j], result[j + 1] = result[j + 1], result[j]\n    return result"),
    ("sorts a list with insertion sort", ("insertion_sort",), (NUMBERS,), "    result = []\n    for item in {0}:\n        i = len(result)\n        while i > 0 and result[i - 1] > item:\n            i -= 1\n        result.insert(i, item)\n    return result"),
    ("sorts a list with quicksort", ("quicksort", "quick_sort"), (NUMBERS,), "    if len({0}) <= 1:\n        return {0}\n    pivot = {0}[0]\n    left = [x for x in {0}[1:] if x < pivot]\n    right = [x for x in {0}[1:] if x >= pivot]\n    return {name}(left) + [pivot] + {name}(right)"),
    ("merges two sorted lists", ("merge", "merge_sorted"), (("a", "left"), ("b", "right")), "    result = []\n    i = j = 0\n    while i < len({0}) and j < len({1}):\n        if {0}[i] <= {1}[j]:\n            result.append({0}[i])\n            i += 1\n        else:\n            result.append({1}[j])\n            j += 1\n    return result + {0}[i:] + {1}[j:]"),
    ("finds an item in a sorted list with binary search", ("binary_search",), (NUMBERS, ("target", "item", "x")), "    low, high = 0, len({0}) - 1\n    while low <= high:\n        middle = (low + high) // 2\n        if {0}[middle] == {1}:\n            return middle\n        if {0}[middle] < {1}:\n            low = middle + 1\n        else:\n            high = middle - 1\n    return -1"),
    ("reverses a list", ("reverse_list", "reversed_list"), (NUMBERS,), "    return {0}[::-1]"),
    ("flattens a list of lists", ("flatten",), (("lists", "nested", "rows"),), "    return [item for row in {0} for item in row]"),
    ("splits a list into chunks of a given size", ("chunks", "split_into_chunks"), (NUMBERS, ("size", "n")), "    return [{0}[i:i + {1}] for i in range(0, len({0}), {1})]"),
    ("reverses a string", ("reverse_string", "reverse"), (TEXT,), "    return {0}[::-1]"),
    ("checks whether a string is a palindrome", ("is_palindrome",), (TEXT,), "    cleaned = ''.join(c.lower() for c in {0} if c.isalnum())\n    return cleaned == cleaned[::-1]"),
    ("counts the vowels in a string", ("count_vowels", "vowels"), (TEXT,), "    return sum(1 for c in {0}.lower() if c in 'aeiou')"),
    ("counts the words in a string", ("count_words", "word_count"), (TEXT,), "    return len({0}.split())"),
    ("returns the longest word in a string", ("longest_word",), (TEXT,), "    words = {0}.split()\n    return max(words, key=len) if words else ''"),
    ("capitalizes every word in a string", ("capitalize_words", "title_case"), (TEXT,), "    return ' '.join(word.capitalize() for word in {0}.split())"),
    ("checks whether two strings are anagrams", ("is_anagram", "are_anagrams"), (("a", "first"), ("b", "second")), "    return sorted({0}.lower()) == sorted({1}.lower())"),
    ("counts each character in a string", ("count_characters", "char_counts"), (TEXT,), "    counts = {{}}\n    for c in {0}:\n        counts[c] = counts.get(c, 0) + 1\n    return counts"),
    ("removes all spaces from a string", ("remove_spaces", "strip_spaces"), (TEXT,), "    return {0}.replace(' ', '')"),
    ("returns the factorial of a number", ("factorial",), (("n", "number", "x"),), "    if {0} < 0:\n        raise ValueError('n must not be negative')\n    result = 1\n    for i in range(2, {0} + 1):\n        result *= i\n    return result"),
    ("returns the nth Fibonacci number", ("fibonacci", "fib"), (("n", "k"),), "    a, b = 0, 1\n    for _ in range({0}):\n        a, b = b, a + b\n    return a"),
    ("checks whether a number is prime", ("is_prime",), (("n", "number", "x"),), "    if {0} < 2:\n        return False\n    for divisor in range(2, int({0} ** 0.5) + 1):\n        if {0} % divisor == 0:\n            return False\n    return True"),
    ("returns all prime numbers below a limit", ("primes", "primes_below"), (("limit", "n"),), "    sieve = [True] * {0}\n    result = []\n    for i in range(2, {0}):\n        if sieve[i]:\n            result.append(i)\n            for j in range(i * i, {0}, i):\n                sieve[j] = False\n    return result"),
    ("returns the greatest common divisor of two numbers", ("gcd", "greatest_common_divisor"), (("a", "x", "m"), ("b", "y", "n")), "    while {1}:\n        {0}, {1} = {1}, {0} % {1}\n    return {0}"),
    ("checks whether a number is even", ("is_even",), (("n", "number", "x"),), "    return {0} % 2 == 0"),
    ("returns the sum of the digits of a number", ("digit_sum", "sum_digits"), (("n", "number"),), "    return sum(int(digit) for digit in str(abs({0})))"),
    ("checks whether a year is a leap year", ("is_leap_year", "leap_year"), (("year", "y"),), "    return {0} % 4 == 0 and ({0} % 100 != 0 or {0} % 400 == 0)"),
    ("converts Celsius to Fahrenheit", ("celsius_to_fahrenheit", "to_fahrenheit"), (("celsius", "c", "degrees"),), "    return {0} * 9 / 5 + 32"),
    ("limits a number to a range", ("clamp", "limit"), (("value", "x"), ("low", "minimum"), ("high", "maximum")), "    return max({1}, min({0}, {2}))"),
    ("adds two numbers", ("add", "add_numbers"), (("a", "x", "first"), ("b", "y", "second")), "    return {0} + {1}"),
    ("swaps the keys and values of a dictionary", ("invert", "swap_keys_and_values"), (("mapping", "d", "dictionary"),), "    return {{value: key for key, value in {0}.items()}}"),
    ("merges two dictionaries", ("merge_dicts", "merge_dictionaries"), (("a", "first"), ("b", "second")), "    result = dict({0})\n    result.update({1})\n    return result"),
    ("reads a file and returns its lines", ("read_lines", "load_lines"), (("path", "filename"),), "    with open({0}, encoding='utf-8') as file:\n        return [line.rstrip('\\n') for line in file]"),
    ("counts the lines in a file", ("count_lines",), (("path", "filename"),), "    with open({0}, encoding='utf-8') as file:\n        return sum(1 for _ in file)"),
    ("writes text to a file", ("write_text", "save_text"), (("path", "filename"), ("text", "content")), "    with open({0}, 'w', encoding='utf-8') as file:\n        file.write({1})"),
    ("reads a JSON file", ("read_json", "load_json"), (("path", "filename"),), "    with open({0}, encoding='utf-8') as file:\n        return json.load(file)"),
    ("transposes a matrix", ("transpose",), (("matrix", "rows"),), "    return [list(row) for row in zip(*{0})]"),
    ("multiplies two matrices", ("matrix_multiply", "matmul"), (("a", "left"), ("b", "right")), "    return [[sum(x * y for x, y in zip(row, column)) for column in zip(*{1})] for row in {0}]"),
]
PHRASINGS = (
    "Write a Python function that {what}.",
    "Write a function that {what}.",
    "Write a Python function `{name}` that {what}.",
    "Write a Python function named {name} which {what}.",
    "Implement a Python function that {what}.",
    "Please write a Python function that {what}.",
    "I need a Python function that {what}.",
)


def exercises(seed=0):
    """Every exercise in every phrasing and under every name: (instruction, code)."""
    choose = random.Random(seed)
    for what, names, parameters, body in EXERCISES:
        for phrasing in PHRASINGS:
            for name in names:
                for _ in range(2):
                    chosen = [choose.choice(options) for options in parameters]
                    imports = "import json\n\n\n" if "json." in body else ""
                    code = f"{imports}def {name}({', '.join(chosen)}):\n" + body.format(*chosen, name=name)
                    yield phrasing.format(what=what, name=name), code
