"""`appraiser check`: what a data set holds, what is wrong with it, and a page on which a shop owner can act.

measures ─▶ findings ─▶ issues      one picture; all rows; what is wrong, by kind
        └─▶ profile, probes         ranges and prices; whether the background gives the labels away
                └─▶ check ─▶ page   check.json, check.html, from which corrections.csv is saved
"""
