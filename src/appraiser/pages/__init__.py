"""Pages that people open in a browser: one HTML file each that needs nothing else, neither network nor server.

page.py the frame and its looks (page.css)     words.py text and numbers     thumbnails.py pictures     charts.py bars

The evaluation report, the page of `appraiser check` and the sample's fidelity page are made of these.
"""
