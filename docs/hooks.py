"""Changes pages for the site: RESULTS.md is outside docs/, so its pictures have other paths."""


def on_page_content(html: str, page, **_) -> str:
    """Returns the page's HTML with the pictures of RESULTS.md where the site has them."""
    return html.replace('src="docs/', 'src="../') if page.file.src_uri == "results.md" else html
