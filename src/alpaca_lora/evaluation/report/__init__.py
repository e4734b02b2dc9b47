"""The report of a comparison: one self-contained page, and the same numbers in Markdown.

    document.py   what a report holds, and its files     build.py          votes to a report
    sections.py   statistics in words                    pair_entries.py   pairs and votes, for the page

A page is about the size of the answers; 1,000 pairs take a second, after the imports.
"""
