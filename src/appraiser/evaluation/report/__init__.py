"""EvalResult -> report.html, and gallery.html with every product.

    page.py         the order of the page            top.py          verdict, tiles
    comparison.py   the table of all methods         gains.py        how far ahead, and whether pictures are needed
    reasoning.py    twins                            against.py      beside another model
    curves.py       training, learning curve         prices.py       the scatter
    calibration.py  intervals, risk and coverage     breakdown.py    slices
    confusion.py    categories taken for others      products.py     the worst and the best
    facts.py        data, settings, versions, words  gallery.py      every product, with gallery.js

Under these: words.py names and writes numbers, tables.py frames tables and draws intervals into their cells, plots.py
and lines.py draw, judged.py compares an answer with the truth, cards.py shows that. Looks are in the *.css.
"""
